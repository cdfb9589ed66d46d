"""Limits and use of namespaces, from what the ledger tells."""

from hami.ledger.quota import QuotaRecord, Quotas
from hami.model.ids import Family, PodUid
from hami.model.quota import Budget, Limit, Measure, Quantum, Spent

NVIDIA, DCU = Family("NVIDIA"), Family("DCU")
CARDS, MEM, CORES = (
    Quantum("n/gpu", NVIDIA, Measure.CARDS),
    Quantum("n/gpumem", NVIDIA, Measure.MEMORY),
    Quantum("n/gpucores", NVIDIA, Measure.CORES),
)
DCU_MEM = Quantum("h/dcumem", DCU, Measure.MEMORY, 2)
A, B = PodUid("a"), PodUid("b")


def quota(name: str, *limits: Limit, namespace: str = "ns") -> QuotaRecord:
    return QuotaRecord(namespace, name, limits)


def test_the_tightest_of_all_quotas_of_a_namespace_counts_each_resource_by_itself() -> None:
    quotas = Quotas()
    assert quotas.set(quota("one", Limit(MEM, 100), Limit(CARDS, 9)))
    assert quotas.set(quota("two", Limit(MEM, 80), Limit(CORES, 50)))
    assert quotas.set(quota("other", Limit(MEM, 7), namespace="elsewhere"))
    assert not quotas.set(quota("two", Limit(MEM, 80), Limit(CORES, 50))), "nothing new"
    assert quotas.budgets("ns") == (
        Budget("ns", CARDS, 9, 0), Budget("ns", CORES, 50, 0), Budget("ns", MEM, 80, 0)
    )  # fmt: skip
    assert quotas.drop("ns", "two")
    assert not quotas.drop("ns", "two")
    assert [(one.quantum, one.most) for one in quotas.budgets("ns")] == [(CARDS, 9), (MEM, 100)]
    assert [one.namespace for one in quotas.all()] == ["elsewhere", "ns", "ns"]
    assert sorted(quotas.names()) == [("elsewhere", "other"), ("ns", "one")]


def test_a_quota_without_a_line_about_cards_is_none() -> None:
    quotas = Quotas()
    assert not quotas.set(quota("q"))
    assert quotas.set(quota("q", Limit(MEM, 1)))
    assert (quotas.limited("ns"), quotas.limited("other")) == (True, False)
    assert quotas.set(quota("q")), "its lines are gone"
    assert not quotas.limited("ns")
    assert quotas.budgets("ns") == ()


def test_use_is_counted_by_family_and_measure_and_given_back() -> None:
    quotas = Quotas()
    quotas.set(quota("q", Limit(MEM, 100), Limit(CARDS, 9), Limit(CORES, 200), Limit(DCU_MEM, 50)))
    quotas.spend(A, "ns", (Spent(NVIDIA, 2, 30, 40), Spent(DCU, 1, 8, 0)))
    quotas.spend(B, "ns", (Spent(NVIDIA, 1, 5, 0),))
    used = {one.quantum.resource: (one.used, one.left) for one in quotas.budgets("ns")}
    assert used == {"n/gpu": (3, 6), "n/gpumem": (35, 65), "n/gpucores": (40, 160), "h/dcumem": (8, 42)}
    without = {one.quantum.resource: one.used for one in quotas.budgets("ns", A)}
    assert without == {"n/gpu": 1, "n/gpumem": 5, "n/gpucores": 0, "h/dcumem": 0}
    assert quotas.used() == {"ns": {NVIDIA: (3, 35, 40), DCU: (1, 8, 0)}}
    quotas.spend(A, "ns", (Spent(NVIDIA, 1, 10, 10),))
    assert quotas.used() == {"ns": {NVIDIA: (2, 15, 10)}}, "in place of what it took"
    quotas.give_back(A)
    quotas.give_back(PodUid("unknown"))
    assert quotas.used() == {"ns": {NVIDIA: (1, 5, 0)}}
    quotas.give_back(B)
    assert quotas.used() == {}


def test_another_namespaces_pod_is_not_left_out_of_the_count() -> None:
    quotas = Quotas()
    quotas.set(quota("q", Limit(MEM, 100)))
    quotas.spend(A, "ns", (Spent(NVIDIA, 1, 30, 0),))
    quotas.spend(B, "other", (Spent(NVIDIA, 1, 50, 0),))
    assert [one.used for one in quotas.budgets("ns", B)] == [30]
    assert quotas.use("other", MEM) == 50
    assert quotas.use("nowhere", MEM) == 0


def test_drift_is_told_both_of_pods_and_of_sums() -> None:
    quotas = Quotas()
    spent = (Spent(NVIDIA, 1, 30, 0),)
    quotas.spend(A, "ns", spent)
    assert quotas.differences({A: ("ns", spent), B: ("ns", ())}) == []
    (pods, sums) = quotas.differences({})
    assert pods == f"quotas count pods {{'a': ('ns', {spent!r})}}, records say {{}}"
    assert sums == "quotas count use {'ns': {'NVIDIA': (1, 30, 0)}}, records make {}"
