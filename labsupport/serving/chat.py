"""A conversation: the messages so far go to the server with each turn, and the server applies the model's template."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from labsupport.errors import LabError
from labsupport.serving.client import Client
from labsupport.serving.sampling import Message, Sampling


@dataclass
class Chat:
    """A conversation with a served model.

    Args:
        client: asks the server.
        sampling: settings of every turn.
        system: what the model is told before the first turn.
        turns: what was said so far, by turns.

    Example:
        >>> chat = Chat(Client())  # doctest: +SKIP
        >>> "".join(chat.say("My name is Ada."))
        >>> "".join(chat.say("What is my name?"))
    """

    client: Client
    sampling: Sampling = field(default_factory=Sampling)
    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    def say(self, text: str) -> Generator[str, None, None]:
        """Say ``text``; the pieces of the answer as they come.

        Closing the iterator, or an interrupt inside its loop, cancels the answer; what was said until then stays in the
        conversation. After an error the turn never happened.

        Raises:
            LabError: the server refuses, or is gone.
        """
        question = {"role": "user", "content": text}
        before: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        said = ""
        try:
            with self.client.stream([*before, *self.turns, question], self.sampling) as stream:
                for chunk in stream:
                    said += chunk.text
                    yield chunk.text
        except LabError:
            raise
        except BaseException:
            self.turns += [question, {"role": "assistant", "content": said}]
            raise
        self.turns += [question, {"role": "assistant", "content": said}]

    def reset(self) -> None:
        """Forget all turns."""
        self.turns.clear()
