"""Typical mistakes of lab 08; each must fail its check."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from labsupport.labs.checks import lab08
from labsupport.repository.dataflow import edges
from labsupport.repository.lint import mend as fix


def _found(text, *, comments=False):
    for number, line in enumerate(text.splitlines(), start=1):
        kept = line if comments else line.split("#")[0]
        for match in re.finditer(r"\$\{(\w+)\}", kept):
            yield number, match[1], line[: match.start()].count('"') % 2 == 1


def reads_comments(text):
    return list(_found(text, comments=True))


def cuts_at_every_sharp(text):
    return list(_found(text))


def counts_lines_from_zero(text):
    return [(number - 1, name, quoted) for number, name, quoted in lab08.placeholders(text)]


def looks_for_any_quote(text):
    return [(number, name, '"' in text.splitlines()[number - 1]) for number, name, _ in lab08.placeholders(text)]


def finds_one_a_line(text):
    return list({number: (number, name, quoted) for number, name, quoted in lab08.placeholders(text)}.values())


def forgets_the_client(config):
    return [edge for edge in edges(config) if "client" not in (edge.source, edge.target)]


def forgets_the_answer(config):
    return [edge for edge in edges(config) if edge.target != "client"]


def uses_the_ensembles_names(config):
    found, home = [], {entry.name: "client" for entry in config.input}
    for step in config.ensemble_scheduling.step:
        found += [(home.get(name), name, step.model_name, name) for name in step.input_map.values()]
        home |= dict.fromkeys(step.output_map.values(), step.model_name)
    return found


def joins_neighbors_only(config):
    steps = ["client", *(step.model_name for step in config.ensemble_scheduling.step), "client"]
    neighbors = set(pairwise(steps))
    return [edge for edge in edges(config) if (edge.source, edge.target) in neighbors]


def leaves_out_what_nobody_writes(config):
    return [edge for edge in edges(config) if edge.source]


def expects_the_usual_name(configs):
    names = [name for name in ("tensorrt_llm", "tensorrt_llm_bls") if name in configs]
    flags = {configs[name].model_transaction_policy.decoupled for name in names}
    return [tuple(names)] if len(flags) > 1 else []


def wants_all_models_alike(configs):
    flags = {name: one.model_transaction_policy.decoupled for name, one in configs.items()}
    return [("bls", name) for name, flag in flags.items() if flag != flags["bls"]]


def forgets_the_draft(configs):
    return [pair for pair in lab08.disagree(configs) if pair[1] != "draft"]


def sees_one_direction(configs):
    return [pair for pair in lab08.disagree(configs) if configs[pair[1]].model_transaction_policy.decoupled]


def joins_and_hopes(value, repository, mounted_at):
    return repository / value


def cuts_the_front_off(value, repository, mounted_at):
    return repository / value.removeprefix(mounted_at).lstrip("/")


def takes_the_start_of_a_name(value, repository, mounted_at):
    if value.startswith("/") and not value.startswith(mounted_at):
        return None
    return cuts_the_front_off(value, repository, mounted_at)


def lets_dots_out(value, repository, mounted_at):
    found = lab08.resolve(value, repository, mounted_at)
    return found if ".." not in value else repository / value


def refuses_absolute_paths(value, repository, mounted_at):
    return None if value.startswith("/") else lab08.resolve(value, repository, mounted_at)


def mends_what_is_safe(folder):
    fix(folder)


def turns_streaming_off(folder):
    lab08.mend(folder)
    for name in ("tensorrt_llm", "tensorrt_llm_bls"):
        lab08.change(folder, name, "decoupled: true", "decoupled: false")


def points_at_this_machine(folder):
    lab08.mend(folder)
    lab08.change(folder, "postprocessing", "_assets/tiny/tokenizer", str(Path("/tmp").resolve()))


def renames_in_the_map(folder):
    lab08.mend(folder)
    old, new = (f'"{name}"' for name in lab08.MISSPELT)
    for name in ("preprocessing", "ensemble"):
        lab08.change(folder, name, old, new)


def throws_the_broken_model_out(folder):
    lab08.mend(folder)
    (folder / "postprocessing" / "config.pbtxt").unlink()


MISTAKES = {
    "08.1": [
        reads_comments,
        cuts_at_every_sharp,
        counts_lines_from_zero,
        looks_for_any_quote,
        finds_one_a_line,
    ],
    "08.2": [
        forgets_the_client,
        forgets_the_answer,
        uses_the_ensembles_names,
        joins_neighbors_only,
        leaves_out_what_nobody_writes,
    ],
    "08.3": [expects_the_usual_name, wants_all_models_alike, forgets_the_draft, sees_one_direction],
    "08.4": [
        joins_and_hopes,
        cuts_the_front_off,
        takes_the_start_of_a_name,
        lets_dots_out,
        refuses_absolute_paths,
    ],
    "08.5": [
        lambda folder: None,
        mends_what_is_safe,
        turns_streaming_off,
        points_at_this_machine,
        renames_in_the_map,
        throws_the_broken_model_out,
    ],
}
