"""Pods of mixed asks as kube-scheduler sends them: the size of real ones, what we skip included."""

import json
import random
from collections.abc import Iterator
from typing import Any

Limits = dict[str, str]


def pods(seed: int = 4) -> Iterator[bytes]:
    """One after the other, for ever, JSON of about 5 KB each: the mix of `benchmarks.cluster.asks`."""
    random_ = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield pod(f"ask-{number}", random_)


def pod(name: str, random_: random.Random) -> bytes:
    """One pending pod of a controller, with the environment, volumes and managed fields that such pods carry."""
    annotations = {"hami.io/node-scheduler-policy": random_.choice(("binpack", "binpack", "spread"))}
    init, apps = containers(random_)
    if random_.random() < 0.07:
        annotations["nvidia.com/use-gputype"] = random_.choice(("A100", "H100", "V100"))
    fields: dict[str, dict[str, dict[str, str]]] = {
        f"f:field-{number}": {f"f:{part}": {} for part in "abcdefgh"} for number in range(14)
    }
    return json.dumps(
        {
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": f"uid-{name}",
                "resourceVersion": "123456",
                "labels": {f"app.kubernetes.io/label-{number}": "value" for number in range(6)},
                "annotations": annotations,
                "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": fields}],
            },
            "spec": {
                "schedulerName": "hami-scheduler",
                "initContainers": [container(f"init-{n}", limits) for n, limits in enumerate(init)] or None,
                "containers": [container(f"main-{n}", limits) for n, limits in enumerate(apps)],
                "volumes": [{"name": f"v{n}", "configMap": {"name": f"config-{n}"}} for n in range(4)],
            },
            "status": {"phase": "Pending"},
        }
    ).encode()


def container(name: str, limits: Limits) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example/team/training:2026.11",
        "env": [{"name": f"SETTING_{number}", "value": "a value of some length"} for number in range(12)],
        "resources": {"limits": {"cpu": "8", "memory": "32Gi", **limits}, "requests": {"cpu": "4", "memory": "32Gi"}},
        "volumeMounts": [{"name": f"v{number}", "mountPath": f"/etc/config/{number}"} for number in range(4)],
    }


def containers(random_: random.Random) -> tuple[list[Limits], list[Limits]]:
    """Init containers and app containers: one small slice mostly."""
    kind = random_.random()
    small = asks(1, random_.randrange(1, 60) * 500, random_.choice((0, 10, 30)))
    if kind < 0.67:
        return [], [small]
    if kind < 0.77:
        return [], [{"nvidia.com/gpu": random_.choice(("1", "2", "4", "8")), "nvidia.com/gpucores": "100"}]
    if kind < 0.87:
        return [], [asks(2, random_.randrange(1, 40) * 1000, 20)]
    if kind < 0.93:
        quarter = {"nvidia.com/gpu": "1", "nvidia.com/gpumem-percentage": "25", "nvidia.com/gpucores": "25"}
        return [], [quarter, {}]
    if kind < 0.97:
        return [], [small, asks(1, 4000, 10)]
    return [small], [asks(1, 4000, 10), small, small]


def asks(cards: int, mem: int, cores: int) -> Limits:
    limits = {"nvidia.com/gpu": str(cards), "nvidia.com/gpumem": canonical(mem)}
    return {**limits, "nvidia.com/gpucores": str(cores)} if cores else limits


def canonical(number: int) -> str:
    """As the API server writes a quantity: ``8000`` comes back as ``8k``."""
    return f"{number // 1000}k" if number % 1000 == 0 else str(number)
