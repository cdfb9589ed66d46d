"""The library's parts by themselves, plain and under the sanitizers; `native/tests/units` says what each checks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import NATIVE, SANITIZERS, Tools, compile_c


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("part", ["parse", "map", "budget", "cost", "overlap", "fuzz 100000 1", "fuzz 100000 2"])
def test_a_part_does_what_it_says(tools: Tools, part: str, sanitizer: str) -> None:
    run(tools.units(SANITIZERS[sanitizer]), part)


@pytest.mark.realtime
def test_who_waits_for_a_moment_wakes_then_and_polls_nothing(tools: Tools) -> None:
    run(tools.units(), "sleeps")


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_a_storm_of_processes_and_threads_never_exceeds_the_limit(tools: Tools, tmp_path: Path, sanitizer: str) -> None:
    rounds = 1500 if sanitizer == "plain" else 300
    run(tools.units(SANITIZERS[sanitizer]), f"storm {tmp_path / 'ledger'} 16 8 {rounds}")


def test_a_slot_belongs_to_its_process_as_long_as_that_lives_and_to_no_other(tools: Tools, tmp_path: Path) -> None:
    """Not to a later process with the same pid; of another pid namespace nobody is declared dead, nor a process whose
    first thread has ended and others not."""
    run(tools.units(SANITIZERS["asan"]), f"slots {tmp_path / 'ledger'}")


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_one_caller_at_a_time_takes_what_only_shows_afterwards_and_the_dead_give_it_up(
    tools: Tools, tmp_path: Path, sanitizer: str
) -> None:
    run(tools.units(SANITIZERS[sanitizer]), f"claims {tmp_path / 'ledger'}")


def test_what_is_lent_is_held_all_the_time_and_once(tools: Tools, tmp_path: Path) -> None:
    run(tools.units(SANITIZERS["asan"]), f"loans {tmp_path / 'ledger'}")


def test_who_sleeps_for_the_ledgers_lock_goes_on_though_nobody_wakes_him(tools: Tools, tmp_path: Path) -> None:
    """A waiter was woken and killed, and who had the lock before it: one in some seventy storms that end so."""
    run(tools.units(), f"wakes {tmp_path / 'ledger'}")


def test_who_changes_the_ledger_or_clears_up_after_the_dead_waits_for_whoever_is_half_way_through_a_change(
    tools: Tools, tmp_path: Path
) -> None:
    assert run(tools.units(), f"alone {tmp_path / 'ledger'}") == "14 changes, each alone\n"


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
def test_a_thread_that_a_handler_takes_out_of_the_ledger_or_calls_there_again_keeps_nobody_waiting(
    tools: Tools, tmp_path: Path, sanitizer: str
) -> None:
    assert run(tools.units(SANITIZERS[sanitizer]), f"jumps {tmp_path / 'ledger'}") == "all went on\n"


@pytest.mark.timeout(900)
def test_ten_thousand_kills_lose_no_byte_and_block_nobody(tools: Tools, tmp_path: Path) -> None:
    """Half a minute on two free cores, of which a busy machine made two."""
    assert "10000 kills, 0 bytes lost" in run(tools.units(), f"kills {tmp_path / 'ledger'} 10000", 850)


def test_who_stands_still_with_the_lock_is_waited_for_until_it_is_killed_and_no_moment_longer(
    tools: Tools, tmp_path: Path
) -> None:
    """There is no other wait in there: what neighbours wait is what the one in front of them lacks a processor."""
    assert "20 halts" in run(tools.units(), f"halted {tmp_path / 'ledger'}")


VECTORS = NATIVE / "tests/broker.vectors"


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
@pytest.mark.parametrize("words", [f"{VECTORS}", f"fuzz 500000 1 {VECTORS}", f"fuzz 500000 2 {VECTORS}"])
def test_packets_are_the_same_in_c_and_nothing_else_is_taken(tools: Tools, words: str, sanitizer: str) -> None:
    run(tools.part("wire", ["src/limits/wire.c"], SANITIZERS[sanitizer]), words)


FUZZ = NATIVE / "tests/fuzz"


def found(target: str) -> list[Path]:
    """Inputs that the target once died of."""
    return sorted(FUZZ.glob(f"found/{target}-*"))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fuzzer_guided_by_what_it_reaches_finds_nothing_in_the_policy_parser(tools: Tools, seed: int) -> None:
    """`make fuzz` runs the same targets under libFuzzer."""
    program = tools.fuzzer("policy", "src/limits/policy.c", "src/prim/linux.c")
    seeds = [*sorted(FUZZ.glob("seeds/policy/*")), *found("policy")]
    told = json.loads(run(program, f"60000 {seed} {' '.join(map(str, seeds))}"))
    assert told["kept"] > 10 * told["seeds"]


def test_a_fuzzer_guided_by_what_it_reaches_finds_nothing_in_the_packets(tools: Tools, tmp_path: Path) -> None:
    program = tools.fuzzer("wire", "src/limits/wire.c")
    seeds = []
    for number, line in enumerate(VECTORS.read_text().splitlines()):
        if line and not line.startswith("#"):
            seeds.append(tmp_path / str(number))
            seeds[-1].write_bytes(bytes.fromhex(line.split()[1]))
    told = json.loads(run(program, f"200000 1 {' '.join(map(str, [*seeds, *found('wire')]))}"))
    assert told["kept"] > told["seeds"]


def test_a_guided_fuzzer_finds_what_chance_would_not(tools: Tools, tmp_path: Path) -> None:
    """The control: a parser that dies of one line among all, which is none of the first inputs."""
    broken, sound = tmp_path / "broken.c", (NATIVE / "tests/fuzz/policy.c").read_text()
    dies = "must(p.cards[0].limit_bytes != (int64_t)77777 << 20)"
    broken.write_text(sound.replace("        check(&p);\n    else", f"        check(&p), {dies};\n    else"))
    (tmp_path / "good").write_text((FUZZ / "seeds/policy/good").read_text().replace("8000", "7777"))
    flags = [*SANITIZERS["asan"], "-fsanitize-coverage=trace-pc,trace-cmp"]
    sources = [broken, "tests/fuzz/guided.c", "src/limits/policy.c", "src/prim/linux.c"]
    compile_c(sources, tmp_path / "fuzz", [*flags, "-O1"])
    done = subprocess.run([tmp_path / "fuzz", "60000", "1", tmp_path / "good"], capture_output=True, check=False)
    assert done.returncode != 0


TURNS = [
    "tests/turns/sim.c",
    "tests/turns/learned.c",
    "src/pay/turns.c",
    "src/pay/page.c",
    "src/pay/budget.c",
    "src/price/cost.c",
]


@pytest.mark.parametrize(
    "case",
    ["shares", "stalls", "polls", "nothing", "bound", "pauses", "lengths", "hostile", "deaths", "idle", "again"],
)
def test_tenants_take_turns_in_simulated_time(tools: Tools, case: str) -> None:
    """Each within 1.5 points of its cap, together 98 % of the card; who is bound by its host takes none; whoever lies
    in the shared page gains nothing."""
    told = run(tools.part("turns", TURNS, SANITIZERS["asan"]), case)
    assert "NO " not in told
    assert told == run(tools.part("turns", TURNS, SANITIZERS["plain"]), case)


@pytest.mark.parametrize("case", ["shares", "seldom", "glances"])
def test_tenants_that_ask_again_and_again_take_turns_as_those_that_block(tools: Tools, case: str) -> None:
    """In simulated time. Who asks now and then between launches, or too seldom to see the end, loses nothing by it."""
    assert "NO " not in run(tools.part("polled", TURNS, SANITIZERS["asan"]), case)


def test_tenants_whose_hosts_are_kept_at_any_moment_take_turns_again_at_once(tools: Tools) -> None:
    """In simulated time: half a second after the last absence each has its percent, and nobody went without turns."""
    assert "NO " not in run(tools.part("absences", TURNS, SANITIZERS["asan"]), "")


def test_tenants_with_kernels_longer_than_a_turn_take_turns_too(tools: Tools) -> None:
    """In simulated time: each within 1.5 points of its percent, 98 of the card together, up to 50 ms a kernel."""
    assert "NO " not in run(tools.part("longkernels", TURNS, SANITIZERS["asan"]), "")


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_who_drains_a_turn_and_comes_back_late_hands_no_later_turn_on(tools: Tools, sanitizer: str) -> None:
    """A handler may keep the thread; the time after which others take its place is over, and they have had a turn."""
    sources = ["src/pay/turns.c", "src/pay/page.c", "src/pay/budget.c"]
    assert run(tools.part("drains", sources, [*SANITIZERS[sanitizer], "-lpthread"]), "") == "still ours\n"


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
def test_who_does_not_come_back_from_a_call_of_the_driver_or_calls_again_in_there_keeps_nobody_waiting(
    tools: Tools, sanitizer: str
) -> None:
    """A handler jumps out of it, ends its thread, or calls: where contexts are made and CUDA is started."""
    sources = ["src/prim/door.c", "src/prim/linux.c", "src/prim/realtime.c"]
    assert run(tools.part("doors", sources, [*SANITIZERS[sanitizer], "-lpthread"]), "") == "nobody waits\n"


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
def test_who_waits_for_a_turn_while_its_place_on_the_page_is_taken_back_goes_on_without(
    tools: Tools, sanitizer: str
) -> None:
    sources = ["src/pay/turns.c", "src/pay/page.c", "src/pay/budget.c"]
    assert run(tools.part("places", sources, [*SANITIZERS[sanitizer], "-lpthread"]), "") == "bought\n"


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
def test_of_several_cards_the_one_that_is_waited_for_is_told_so(tools: Tools, sanitizer: str) -> None:
    sources = ["src/pay/turns.c", "src/pay/page.c", "src/pay/budget.c"]
    assert run(tools.part("waits", sources, [*SANITIZERS[sanitizer], "-lpthread"]), "") == "each its own\n"


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
def test_a_dozen_kernels_hardly_ever_push_each_other_out_of_what_a_thread_keeps(tools: Tools, sanitizer: str) -> None:
    """By chance of their addresses, so of thousands of programs: in 1 or 2 percent of them. With one place for keys
    that fall together it is 40, and 9 where functions of one size lie in a row."""
    sources = ["src/pay/lane.c", "src/price/cost.c", "src/pay/budget.c"]
    program = tools.part("lanes", sources, [*SANITIZERS[sanitizer], "-lpthread"])
    percent: dict[str, float] = json.loads(run(program, ""))
    assert set(percent) == {"apart", "in_a_row", "of_many_grids"}
    assert max(percent.values()) < 3


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
def test_who_sees_to_a_group_of_low_priority_and_comes_back_late_leaves_it_as_others_have_made_it(
    tools: Tools, sanitizer: str
) -> None:
    assert run(tools.part("groups", [], SANITIZERS[sanitizer]), "") == "as the other left it\n"


@pytest.mark.parametrize("sanitizer", ["plain", "asan"])
def test_of_threads_of_several_real_time_ranks_none_takes_gates_for_opened_that_are_not(
    tools: Tools, sanitizer: str
) -> None:
    """Two at the same moment: the lower had the last word with the kernel, and the higher spun for ever."""
    alone = ["-ffunction-sections", "-Wl,--gc-sections", "-lpthread"]
    assert run(tools.part("ranks", [], [*SANITIZERS[sanitizer], *alone]), "") == "before all\n"


def test_every_export_of_every_driver_we_know_has_a_class(tmp_path: Path) -> None:
    """Of drivers, of the headers of CUDA 12 and 13, and those that HAMi-core hooks."""
    lists = sorted((NATIVE / "src/intercept/drivers").glob("*.txt"))
    kinds = {each.name.rsplit("-", 1)[0] for each in lists}
    assert kinds == {"cuda", "cuda-header", "hami-core", "nvml", "nvml-header"}
    for each in lists:
        told = check(each)
        assert (told.returncode, " 0 not" in told.stdout) == (0, True), told.stdout
    new = tmp_path / "driver"
    new.write_text("cuInit\ncuMemAllocFromTheFuture\n")
    told = check(new)
    assert (told.returncode, "cuMemAllocFromTheFuture" in told.stdout) == (1, True)


def check(*lists: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, NATIVE / "tools/intercept.py", "check", NATIVE / "src/intercept/table.txt", *lists]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(program: Path, words: str, seconds: float = 250) -> str:
    done = subprocess.run([program, *words.split()], capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
