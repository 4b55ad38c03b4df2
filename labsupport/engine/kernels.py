"""Which kernels a compiled graph runs, and what each of them fuses: read off the source that lies in its package."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path


def kernels_of(package: Path) -> list[str]:
    """The kernels of a graph, in the order of their first call.

    The compiler names a kernel after the operations that it computes in one pass: ``cpp_fused_mean_mul_rsqrt_sum_3``.
    Calls of a library (``aoti_torch_cpu_mm_out``, ``extern_kernels.mm``) are listed too.
    """
    with zipfile.ZipFile(package) as archive:
        names = [name for name in archive.namelist() if name.endswith(("wrapper.cpp", ".py"))]
        sources = [archive.read(name).decode() for name in names]
    bodies = [re.split(r"::run_impl\(|def call\(", source, maxsplit=1) for source in sources]
    called = re.findall(
        r"\b((?:cpp|triton)_\w*fused\w*(?=\(|\.run\()|aoti_torch_cpu_\w+(?=\()|extern_kernels\.\w+(?=\())",
        "\n".join(body[1] for body in bodies if len(body) > 1),
    )
    return list(dict.fromkeys(called))
