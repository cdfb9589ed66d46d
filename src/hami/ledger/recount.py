"""The proof that nothing has drifted: everything derived, worked out again from the records alone."""

from collections.abc import Mapping

import numpy as np

from hami.ledger.account import Account, Charges
from hami.ledger.index import Index
from hami.ledger.records import PodRecord
from hami.model.ids import NodeName, PodUid
from hami.model.reservation import Reservation
from hami.plan.fleet.columns import CELLS
from hami.plan.snapshot import NodeState


def differences(
    accounts: Mapping[NodeName, Account],
    pods: Mapping[PodUid, PodRecord],
    holds: Mapping[PodUid, Reservation],
    index: Index,
) -> list[str]:
    """Each difference as a sentence: holders against records, states against holders, columns against states."""
    found = [f"pod {uid} is both bound and reserved" for uid in pods.keys() & holds.keys()]
    found += _holders(accounts, pods, holds)
    for name, account in accounts.items():
        found += _state(account, index.find(name))
    found += [f"node {name} has a row and no account" for name in index.rows if NodeName(name) not in accounts]
    for row_name, row in index.rows.items():
        found += _row(index, row_name, row)
    return found


def _holders(
    accounts: Mapping[NodeName, Account], pods: Mapping[PodUid, PodRecord], holds: Mapping[PodUid, Reservation]
) -> list[str]:
    due: dict[NodeName, dict[PodUid, Charges]] = {}
    for uid, record in pods.items():
        due.setdefault(record.node, {})[uid] = record.charges
    for uid, hold in holds.items():
        due.setdefault(hold.plan.node, {})[uid] = hold.plan.charges
    return [
        f"node {name}: holders are {_holders_of(accounts, name)}, records say {due.get(name, {})}"
        for name in due.keys() | accounts.keys()
        if _holders_of(accounts, name) != due.get(name, {})
    ]


def _holders_of(accounts: Mapping[NodeName, Account], name: NodeName) -> dict[PodUid, Charges]:
    return accounts[name].holders if name in accounts else {}


def _state(account: Account, state: NodeState | None) -> list[str]:
    due = account.state(state.generation if state else 0)
    return [] if state == due else [f"node {account.name}: state is {state}, its records make {due}"]


def _row(index: Index, name: str, row: int) -> list[str]:
    """A row against a fresh one written from the state."""
    columns, state = index.columns, index.state(row)
    fresh = columns.empty(1)
    fresh.write(0, state)
    found = []
    for cell in CELLS:
        have, due = getattr(columns, cell)[:, row], getattr(fresh, cell)[:, 0]
        if cell not in ("standing", "kind"):  # where there is no card, what is left there does not matter
            have, due = have[: len(state.cards)], due[: len(state.cards)]
        if not np.array_equal(have, due):
            found.append(f"node {name}: column {cell} is {have.tolist()}, its cards make {due.tolist()}")
    whole = any(getattr(columns, cell)[row] != getattr(fresh, cell)[0] for cell in ("node_score", "usable", "cards"))
    if whole or (row in columns.odd) != (0 in fresh.odd):
        found.append(f"node {name}: score, use or number of cards differs from its state")
    if state.name != name:
        found.append(f"row {row} belongs to {name} and holds {state.name}")
    return found
