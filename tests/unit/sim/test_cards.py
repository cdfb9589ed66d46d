import re
import subprocess
import sys
from pathlib import Path

import pytest

from hami.model.errors import Malformed
from hami.sim.cards import Bench, Fault, Process, Rack, SimCard, main, parse
from hami.sim.models import MODELS
from hami.sim.rackfile import render, write_sysfs
from hami.vendors.nvidia import nvml as n
from hami.vendors.nvidia.driver import Driver

MIB = 1 << 20


def test_a_description_names_models_and_what_differs() -> None:
    rack = parse("cards: [{model: H100, numa: 1}, {model: T4, mem_mib: 8192}]")
    assert rack == Rack([SimCard("H100", numa=1), SimCard("T4", mem_mib=8192)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cards: [{model: A101}]", "cards:$.cards[0].model"),
        ("cards: [{modell: A100-40}]", "modell"),
        ("cards: [{numa: x}]", "cards:$.cards[0].numa"),
        ("cards: [{}, {}]\nnvlinks: [[0]]", "cards:$.nvlinks"),
        ("cards: [", "cards, line 1, column 9: "),
        ("cards: [{faults: [{function: x, result: wet}]}]", "faults"),
    ],
)
def test_a_wrong_description_says_where(text: str, says: str) -> None:
    with pytest.raises(Malformed, match=re.escape(says)):
        parse(text)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_seen_as_described(bench: Bench, nvml: Driver, model: str) -> None:
    bench.put(Rack([SimCard(model)]))
    device = nvml.device(0)
    assert nvml.name(device) == MODELS[model].name
    assert nvml.memory(device).total == MODELS[model].mem_mib * MIB
    assert nvml.capability(device) == MODELS[model].capability
    assert len(nvml.gpu_instance_profiles(device)) == len(MODELS[model].mig)


def test_machines_have_cards_of_their_own(tmp_path: Path) -> None:
    here = Bench(tmp_path / "a", Rack([SimCard(), SimCard()], machine="a"))
    there = Bench(tmp_path / "b", Rack([SimCard(), SimCard()], machine="b"))
    assert len({here.uuid(0), here.uuid(1), there.uuid(0), there.uuid(1)}) == 4


def test_processes_take_memory_and_make_a_card_busy(bench: Bench, nvml: Driver) -> None:
    device = nvml.device(0)
    before = nvml.memory(device)
    bench.run(0, [Process(10, mem_mib=100, busy_percent=30), Process(11, mem_mib=None, kind="graphics")])
    assert nvml.memory(device).used == before.used + 100 * MIB
    assert nvml.load(device).gpu == 30
    assert nvml.processes(device) == (n.Process(10, 100 * MIB), n.Process(11, None, graphics=True))
    assert [(load.pid, load.sm_percent) for load in nvml.process_loads(device, 0)] == [(10, 30)]


def test_an_xid_wakes_who_waits_for_it_once(bench: Bench, nvml: Driver) -> None:
    devices = [(nvml.device(index), n.EVENT_XID) for index in range(2)]
    bench.xid(0, 31)
    events = nvml.event_set(devices)
    bench.xid(1, 79)
    bench.xid(1, 48, gpu_instance=2, compute_instance=0)
    assert nvml.wait(events, 1000) == n.Event(bench.uuid(1), n.EVENT_XID, 79)
    assert nvml.wait(events, 1000) == n.Event(bench.uuid(1), n.EVENT_XID, 48, 2, 0)
    with pytest.raises(n.Timeout):
        nvml.wait(events, 1)
    nvml.free(events)


def test_a_lost_card_answers_nothing_and_comes_back(bench: Bench, nvml: Driver) -> None:
    device = nvml.device(1)
    bench.change(1, lost=True)
    assert nvml.count() == 2
    for call in (lambda: nvml.device(1), lambda: nvml.memory(device), lambda: nvml.uuid(device)):
        with pytest.raises(n.CardLost):
            call()
    assert nvml.name(nvml.device(0)) == "NVIDIA A100-SXM4-40GB"
    bench.heal(1)
    assert nvml.uuid(device) == bench.uuid(1)


def test_a_pulled_card_leaves_its_neighbours_as_they_were(bench: Bench, nvml: Driver) -> None:
    kept = bench.uuid(1)
    place = nvml.pci(nvml.device(1))
    bench.pull(0)
    assert nvml.count() == 1
    assert nvml.uuid(nvml.device(0)) == kept
    assert nvml.pci(nvml.device(0)) == place


def test_a_fault_hits_one_function_of_one_card_in_all_its_versions(bench: Bench, nvml: Driver) -> None:
    bench.fail(0, "nvmlDeviceGetMemoryInfo", "not-supported")
    with pytest.raises(n.NotSupported):
        nvml.memory(nvml.device(0))
    assert nvml.memory(nvml.device(1)).total
    assert nvml.name(nvml.device(0))
    bench.heal(0)
    assert nvml.memory(nvml.device(0)).total


def test_a_fault_of_the_machine_keeps_nvml_from_starting(bench: Bench, nvml: Driver) -> None:
    nvml.close()
    bench.fail(None, "nvmlInit", "driver-not-loaded")
    with pytest.raises(n.DriverMissing, match="no NVIDIA driver"):
        nvml.open()
    bench.heal()
    nvml.open()


def test_nvlinks_follow_the_matrix_or_the_switch(bench: Bench, nvml: Driver) -> None:
    one, other = nvml.device(0), nvml.device(1)
    assert {(link.to_switch, link.version) for link in nvml.nvlinks(one)} == {(True, 4)}
    assert len(nvml.nvlinks(one)) == 12
    bench.put(Rack([SimCard(), SimCard(), SimCard()], nvlinks=[[0, 4, 0], [4, 0, 0], [0, 0, 0]]))
    assert [link.remote.bus for link in nvml.nvlinks(one)] == [nvml.pci(other).bus] * 4
    assert nvml.nvlinks(nvml.device(2)) == ()
    assert nvml.peer_access(one, other, n.Peer.NVLINK)
    assert not nvml.peer_access(one, nvml.device(2), n.Peer.NVLINK)


def test_the_way_over_pcie_is_by_numa_node_or_as_given(bench: Bench, nvml: Driver) -> None:
    one, other = nvml.device(0), nvml.device(1)
    assert nvml.level(one, other) is n.Level.SYSTEM
    bench.put(Rack([SimCard(), SimCard()], paths=[[0, 10], [10, 0]]))
    assert nvml.level(one, other) is n.Level.SWITCH


def test_a_broken_file_leaves_the_cards_as_they_were(bench: Bench, nvml: Driver, capfd: pytest.CaptureFixture) -> None:
    whole = bench.path.read_text()
    for broken, says in (
        (whole[:-4], "half a file"),
        ("hello\n", "line 1"),
        (whole.replace("temperature", "temprature"), "not understood: temprature"),
        (whole.replace("memory ", "memory x"), "not understood: memory"),
    ):
        bench.path.write_text(broken)
        assert nvml.count() == 2
        assert says in capfd.readouterr().err
    bench.put(Rack([SimCard()]))
    assert nvml.count() == 1


def test_without_a_description_there_is_no_driver(nvml: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.close()
    monkeypatch.delenv("HAMI_SIM_CARDS")
    with pytest.raises(n.DriverMissing):
        nvml.open()
    monkeypatch.undo()


def test_sysfs_tells_the_numa_nodes(bench: Bench, nvml: Driver, tmp_path: Path) -> None:
    write_sysfs(tmp_path, bench.rack)
    files = [tmp_path / "bus/pci/devices" / nvml.pci(nvml.device(index)).sysfs_name / "numa_node" for index in range(2)]
    assert [file.read_text().strip() for file in files] == ["0", "1"]


def test_the_file_ends_with_its_mark() -> None:
    text = render(Rack([SimCard(faults=[Fault("*", "gpu-is-lost")])]))
    assert text.startswith("hami-sim-cards 1\n")
    assert text.endswith("\nfault * 15 0\nend\n")


def test_the_compiler_says_how_to_use_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "cards.yaml").write_text("cards: [{model: A10}]")
    made = tmp_path / "cards.sim"
    done = subprocess.run(
        [sys.executable, "-m", "hami.sim.cards", tmp_path / "cards.yaml", made],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"HAMI_SIM_CARDS={made}" in done.stdout
    assert "name NVIDIA A10\n" in made.read_text()


def test_a_description_that_is_no_text_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cards.yaml").write_bytes(b"cards: [\xff]")
    assert main([str(tmp_path / "cards.yaml"), str(tmp_path / "cards.sim")]) == 1
    assert capsys.readouterr().err.endswith("text in UTF-8\n")
