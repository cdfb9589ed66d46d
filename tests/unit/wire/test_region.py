"""Bytes of HAMi-core's region, decoded by the documented layout."""

import ctypes as c

from hami.wire.region import BYTES, PROCESSES, PROCESSES_AT, TAIL_AT, Region, RegionCard, RegionProcess, RegionUse

from . import region_layout as layout


def decoded(region: Region) -> layout.Region:
    text = region.head() + region.slots() + region.tail()
    assert (len(region.head()), len(region.head() + region.slots()), len(text) + 1) == (PROCESSES_AT, TAIL_AT, BYTES)
    return layout.Region.from_buffer_copy(text)


def of(cards=(), processes=(), **more) -> Region:
    return Region(**{"cards": cards, "processes": processes, "priority": 1, "active": False, "last_kernel_s": 0} | more)


def words(part: c.Structure) -> list[int]:
    """All numbers of a structure, in order; of arrays of structures likewise."""
    found: list[int] = []
    for name, *_ in part._fields_:
        value = getattr(part, name)
        for each in value if hasattr(value, "__len__") else [value]:
            found += words(each) if isinstance(each, c.Structure) else [each]
    return found


def test_the_layout_is_the_documented_one():
    assert (c.sizeof(layout.Slot), c.sizeof(layout.Region), BYTES) == (1960, 2_008_952, 2_008_953)
    assert (layout.Region.procs.offset, layout.Region.proc_num.offset) == (1856, 2_008_896)
    assert layout.Slot.device_util.offset == 1160


def test_every_number_is_in_its_place_and_all_others_are_nought():
    use = RegionUse(context=1, module=20, buffer=300, sm_percent=55)
    processes = (RegionProcess(7, 70, (RegionUse(), use)), RegionProcess(8, 80, ()))
    cards = (RegionCard("GPU-a", 4000, 30), RegionCard("GPU-b", 0, 100))
    region = decoded(of(cards, processes, priority=0, active=True, last_kernel_s=99))
    head = (region.magic, region.major, region.minor, region.sm_init_flag, region.owner_pid, region.device_num)
    assert head == (19920718, 1, 2, 0, 0, 2)
    assert (region.semaphore, region.semaphore_after) == (b"", b"")
    assert [uuid.value for uuid in region.uuids] == [b"GPU-a", b"GPU-b"] + [b""] * 14
    assert list(region.limit) == [4000] + [0] * 15
    assert list(region.sm_limit) == [30, 100] + [0] * 14
    first = words(region.procs[0])
    used, times = [0] * 8 + [1, 20, 300, 0, 321, 0, 0, 0], [0] * 6 + [0, 0, 55, 0, 0, 0]
    assert first == [7, 70, *used, *[0] * 112, *[0] * 16, *times, *[0] * 84, 1, 0, 0, 0]
    assert words(region.procs[1]) == [8, 80, *[0] * 240, 1, 0, 0, 0]
    assert words(region.procs[2]) == [0] * 246
    assert (region.proc_num, region.utilization_switch, region.recent_kernel) == (2, 1, 2)
    assert (region.priority, region.last_kernel_time) == (0, 99)
    assert decoded(of()).recent_kernel == 0


def test_what_does_not_fit_is_left_out_and_no_number_is_below_nought_or_beyond_the_field():
    use = RegionUse(context=-5, buffer=2**64)
    processes = tuple(RegionProcess(pid, pid, (use,) * 17) for pid in range(1, PROCESSES + 3))
    region = decoded(of((RegionCard("G" * 200, -1, 30),) * 17, processes))
    assert (region.proc_num, region.device_num, region.procs[PROCESSES - 1].pid) == (PROCESSES, 16, PROCESSES)
    assert (region.procs[0].used[15].context, region.procs[0].used[15].buffer) == (0, 2**63 - 1)
    assert (region.uuids[15].value, region.limit[0]) == (b"G" * 95, 0)


def test_only_so_many_slots_as_are_asked_for_are_made():
    region = of((), (RegionProcess(7, 70, ()),))
    assert (len(region.slots(2)), len(region.slots(0))) == (2 * 1960, 0)
