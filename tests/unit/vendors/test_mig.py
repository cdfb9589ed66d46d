"""The administrator's list of MIG profiles (row 7.6, scheduler side), and records with instances."""

from hami.config.schema import MigAllowlist, NvidiaConfig
from hami.model.ask import PodRef
from hami.model.card import Card, Instance, MigProfile, Placement
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Plan, Slice
from hami.vendors.nvidia import Nvidia
from hami.wire import annotations, register

PROFILES = tuple(
    MigProfile(name, mem, core, size, (Placement(0, size),))
    for name, mem, core, size in (("1g.5gb", 4864, 15, 1), ("2g.10gb", 9856, 29, 2), ("7g.40gb", 40192, 100, 8))
)


def offered(model: str, *entries: tuple[list[str], list[str]]) -> list[str]:
    card = Card(CardId("GPU-a"), Nvidia.family, model, 0, 7, 40960, 100, mode="mig", mig_profiles=PROFILES)
    vendor = Nvidia(NvidiaConfig(mig_profile_allowlist=[MigAllowlist(*entry) for entry in entries]))
    return [profile.name for profile in vendor.decode_register(register.encode([card]))[0].mig_profiles]


def test_only_listed_profiles_are_ever_used() -> None:
    assert offered("NVIDIA A100-SXM4-40GB", (["A100-SXM4-40GB"], ["1g.5gb", "3g.20gb"])) == ["1g.5gb"]


def test_without_a_list_all_that_is_registered_counts_and_a_card_that_none_names_offers_nothing() -> None:
    assert offered("NVIDIA A100-SXM4-40GB") == ["1g.5gb", "2g.10gb", "7g.40gb"]
    assert offered("NVIDIA A100-SXM4-40GB", (["A30"], ["1g.6gb"])) == []


def test_the_longest_name_that_fits_counts_whatever_its_place_in_the_list() -> None:
    entries = (["H20"], ["1g.5gb"]), (["H200"], ["2g.10gb"])
    assert offered("NVIDIA H200", *entries) == offered("NVIDIA H200", *reversed(entries)) == ["2g.10gb"]
    assert offered("NVIDIA H20", *entries) == ["1g.5gb"]


def test_the_record_of_a_bound_pod_tells_profile_and_place() -> None:  # 7.1
    slices = (Slice(CardId("GPU-a"), Nvidia.family, 9856, 29, Instance("2g.10gb", 2, 2)),)
    plan = Plan(PodRef("ns", "p", PodUid("u")), NodeName("n"), ((), slices), (), 1)
    written = annotations.records(plan, [Nvidia(NvidiaConfig())], 0.0)
    assert written["hami.io/vgpu-devices-allocated"] == ";GPU-a,NVIDIA,9856,29:;"
    assert written["hami.io/vgpu-mig-allocations"] == (
        '[{"containerIndex":1,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"2g.10gb","placement":{"start":2,"size":2}}]'
    )
