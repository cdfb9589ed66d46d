"""What the tests of libvgpu share: the library, the simulated driver and the test programs, built once a session."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hami.sim.cards import Bench, parse

NATIVE = Path(__file__).resolve().parents[2] / "native"
STRICT = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion"]
SHARED = ["-fPIC", "-fvisibility=hidden", "-shared", "-Wl,-Bsymbolic"]
SANITIZERS = {
    "plain": ["-O1"],
    "asan": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-O1", "-fsanitize=thread"],
}
UNITS = [
    "src/limits/policy.c",
    "src/memory/map.c",
    "src/memory/claims.c",
    "src/memory/ledger.c",
    "src/memory/loans.c",
    "src/pay/budget.c",
    "src/price/cost.c",
    "src/price/overlap.c",
    "src/prim/linux.c",
]


@dataclass(frozen=True)
class Tools:
    """A folder with libvgpu.so, sim/libcuda.so.1, sim/libnvidia-ml.so.1 and the programs probe, lookups, units."""

    folder: Path

    @property
    def library(self) -> Path:
        return self.folder / "libvgpu.so"

    @property
    def policy(self) -> Path:
        """Where this build of the library looks for its policy, in place of /usr/local/vgpu/policy."""
        return self.folder / "policy"

    def part(self, name: str, sources: Sequence[str], flags: Sequence[str]) -> Path:
        """A program of its own for one part: ``tests/<name>.c`` and the library's files it needs."""
        program = self.folder / f"{name}{''.join(flags).replace('=', '-')}"
        if not program.exists():
            compile_c([f"tests/{name}.c", *sources], program, flags)
        return program

    def sanitized(self, kind: str, *more: str) -> str:
        """LD_PRELOAD of the whole library under a sanitizer, `more` being sources that are linked into it.

        Lookups are left out: a sanitizer asks for dlsym before it can be asked anything itself.
        """
        library = self.folder / f"libvgpu-{kind}{'-'.join(('', *(Path(each).stem for each in more)))}.so"
        if not library.exists():
            lookups = [NATIVE / f"src/intercept/{each}.c" for each in ("elf", "lookup", "translate")]
            plain = [self.folder / f"{each.stem}.o" for each in lookups]
            for source, made in zip(lookups, plain, strict=True):
                compile_c([source], made, ["-O2", "-fPIC", "-fvisibility=hidden", "-c"])
            rest = [each for each in sorted((NATIVE / "src").rglob("*.c")) if each not in lookups]
            link = [f"-Wl,--version-script={self.folder / 'exports.map'}", "-ldl", "-lpthread"]
            path = f'-DHAMI_POLICY_PATH="{self.policy}"'
            compile_c(
                [*rest, *more, self.folder / "hooks.c", *plain], library, [*SANITIZERS[kind], *SHARED, path, *link]
            )
        runtime = subprocess.run(
            ["gcc", f"-print-file-name=lib{kind}.so"], capture_output=True, text=True, check=True
        ).stdout
        return f"{Path(runtime.strip()).resolve()} {library}"

    def counting(self) -> str:
        """The whole library, which says of each program how many launches went the long way (``tests/longway.c``)."""
        library = self.folder / "libvgpu-counting.so"
        if not library.exists():
            launch = NATIVE / "src/pay/launch.c"
            seen = self.folder / "launch.o"
            compile_c([launch], seen, ["-O2", "-fPIC", "-fvisibility=hidden", "-finstrument-functions", "-c"])
            rest = [each for each in sorted((NATIVE / "src").rglob("*.c")) if each != launch]
            link = [f"-Wl,--version-script={self.folder / 'exports.map'}", "-ldl", "-lpthread"]
            sources = [*rest, self.folder / "hooks.c", "tests/longway.c", seen]
            compile_c(sources, library, ["-O2", *SHARED, *link])
        return str(library)

    def fuzzer(self, target: str, source: str, *more: str) -> Path:
        """A fuzz target of ``tests/fuzz``, guided by what it reaches of `source`, under ASan and UBSan."""
        program = self.folder / f"fuzz-{target}"
        if not program.exists():
            seen = [self.folder / f"fuzz-{target}-{number}.o" for number in range(2)]
            coverage = "-fsanitize-coverage=trace-pc,trace-cmp"
            for each, made in zip((source, f"tests/fuzz/{target}.c"), seen, strict=True):
                compile_c([each], made, [*SANITIZERS["asan"], coverage, "-c"])
            compile_c(["tests/fuzz/guided.c", *more, *seen], program, SANITIZERS["asan"])
        return program

    def units(self, flags: Sequence[str] = ("-O1",)) -> Path:
        program = self.folder / f"units{''.join(flags).replace('=', '-')}"
        if not program.exists():
            compile_c([*sorted((NATIVE / "tests/units").glob("*.c")), *UNITS], program, [*flags, "-lpthread"])
        return program


def compile_c(sources: Sequence[str | Path], output: Path, flags: Sequence[str]) -> None:
    include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}", f"-I{output.parent}"]
    subprocess.run(
        ["gcc", *STRICT, *include, *(str(NATIVE / each) for each in sources), "-o", output, *flags], check=True
    )


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    folder = tmp_path_factory.mktemp("vgpu")
    made = Tools(folder)
    table = NATIVE / "src/intercept/table.txt"
    subprocess.run([sys.executable, NATIVE / "tools/intercept.py", "make", table, folder], check=True)
    subprocess.run(
        [sys.executable, NATIVE / "tools/fakestubs.py", table, NATIVE / "fake-driver/versions.txt", folder / "stubs.c"],
        check=True,
    )
    shared = ["-O2", *SHARED]  # as it ships; without sibling calls the C library would see us as the caller
    sim = folder / "sim"
    sim.mkdir()
    compile_c(
        [*sorted((NATIVE / "src").rglob("*.c")), folder / "hooks.c"],
        made.library,
        [
            *shared,
            f'-DHAMI_POLICY_PATH="{made.policy}"',
            f"-Wl,--version-script={folder / 'exports.map'}",
            "-ldl",
            "-lpthread",
        ],
    )
    driver = [f"-I{NATIVE / 'fake-driver'}", "-Wl,-soname,libcuda.so.1", "-Wl,--default-symver", "-lpthread"]
    compile_c(
        [*sorted((NATIVE / "fake-driver").glob("*.c")), folder / "stubs.c"], sim / "libcuda.so.1", [*shared, *driver]
    )
    nvml = [f"-I{NATIVE / 'sim-nvml'}", "-Wl,-soname,libnvidia-ml.so.1", "-lpthread"]
    compile_c(sorted((NATIVE / "sim-nvml").glob("*.c")), sim / "libnvidia-ml.so.1", [*shared, *nvml])
    probe = [*sorted((NATIVE / "probe").glob("*.c")), "src/intercept/elf.c"]
    compile_c(probe, folder / "probe", ["-O1", "-ldl", "-lpthread"])
    compile_c(["tests/nextlookup.c"], folder / "libnextlookup.so", ["-O1", "-fPIC", "-shared"])
    link = [f"-L{folder}", "-lnextlookup", f"-Wl,-rpath,{folder}", "-ldl"]
    compile_c(["tests/lookups.c", "src/intercept/elf.c"], folder / "lookups", ["-O1", *link])
    compile_c(["tests/manners.c"], folder / "manners", ["-O1", "-ldl"])
    return made


def launches(container: "Container", kernels: int, **limits: str) -> tuple[int, int]:
    """Of so many kernels in turn: all that the probe made by what lookups give, and those that went the long way."""
    told = container.probe("launches", 60_000, kernels, **limits, LD_PRELOAD=container.tools.counting())
    _, _, long_way = str(told["stderr"]).rpartition("the long way: ")
    return int(str(told["launches"])), int(long_way)


def kept(told: Mapping[str, object], seconds: float) -> float:
    """Percent of the card, of so many seconds, that a busy machine may have cost a program of the probe.

    For so long its threads stood in line for a processor. Whatever it lacks beyond that the library has held back.
    """
    return float(str(told["kept_s"])) / seconds * 100


class Container:
    """One container: its cards, its limits, its processes."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        self.tools = tools
        self.ledger = folder / "ledger"
        self.bench = Bench(folder / "cards", parse("cards: [{model: A100-40}, {model: A100-40}]"))

    def environment(self, **limits: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA_", "GPU_CORE", "LD_"))}
        plain = {
            **kept,
            **self.bench.environment,
            "LD_LIBRARY_PATH": str(self.tools.folder / "sim"),
            "PROBE_SIMULATED": "1",
        }
        return {
            **plain,
            "LD_PRELOAD": str(self.tools.library),
            "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(self.ledger),
            **limits,
        }

    def start(self, *words: object, stdin: int | None = None, **limits: str) -> "subprocess.Popen[str]":
        command = [str(self.tools.folder / str(words[0])), *map(str, words[1:])]
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environment(**limits), text=True, **pipes)

    def probe(self, *words: object, **limits: str) -> dict[str, object]:
        """Runs the probe to its end; its line of JSON, with what it said on stderr under `stderr`."""
        out, err = self.start("probe", *words, **limits).communicate(timeout=60)
        answer: dict[str, object] = json.loads(out.splitlines()[-1]) if out else {}
        return answer | {"stderr": err}


@pytest.fixture
def container(tools: Tools, tmp_path: Path) -> Container:
    return Container(tools, tmp_path)


@pytest.fixture
def blind() -> dict[str, str]:
    """Variables of a program that NVML does not show, so that it cannot set the ledger right a second later."""
    return {"HAMI_SIM_NVML_HIDES": "1"}


@pytest.fixture
def without_nvml(container: Container, tmp_path: Path) -> dict[str, str]:
    """Variables of a program that finds the driver, and no NVML."""
    driver = tmp_path / "only-cuda"
    driver.mkdir()
    (driver / "libcuda.so.1").symlink_to(container.tools.folder / "sim" / "libcuda.so.1")
    return {"LD_LIBRARY_PATH": str(driver)}
