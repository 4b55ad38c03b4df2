"""The command that serves a repository in the pinned NVIDIA container. Not run here: it needs Docker and a GPU."""

from __future__ import annotations

from pathlib import Path

from labsupport.compatibility import load_compatibility
from labsupport.repository.launch import server_arguments
from labsupport.serving.address import Address
from labsupport.workspace import repository_root

INSIDE = "/opt/tritonserver/projects"


def container_command(repository: Path, address: Address, tag: str | None = None) -> list[str]:
    """``docker run`` with the repository mounted, its three ports published, and the launch script called.

    Args:
        repository: the model repository; its engine must have been built in the same image.
        address: where the host listens.
        tag: of the container, such as 25.06; the pinned one where missing.

    Raises:
        RepositoryError: there is no model in the folder.
        ParameterError: no such container.
    """
    server_arguments(repository)
    table = load_compatibility()
    image = table.container(tag or table.default).image
    command = ["docker", "run", "--rm", "--gpus", "all", "--shm-size=2g", "--ulimit", "memlock=-1"]
    command += ["--ulimit", "stack=67108864"]
    for step in range(3):
        command += ["--publish", f"{address.host}:{address.port + step}:{8000 + step}"]
    command += ["--volume", f"{repository.resolve()}:{INSIDE}/repository:ro"]
    command += ["--volume", f"{repository_root() / 'docker' / 'scripts'}:{INSIDE}/scripts:ro"]
    return [*command, image, "bash", f"{INSIDE}/scripts/serve_repository.sh", f"{INSIDE}/repository"]
