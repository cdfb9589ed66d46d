"""Card models for the simulation: names, sizes and MIG geometries as the driver reports them.

Figures are from public data sheets and NVIDIA's MIG guide. Where a real card was
looked at, `tests/gpu/nvml_contract` compares them.
"""

from collections.abc import Mapping

from msgspec import Struct

PASCAL, VOLTA, TURING, AMPERE, ADA, HOPPER = 4, 5, 6, 7, 8, 9  # NVML_DEVICE_ARCH_...


class Profile(Struct, frozen=True):
    """A GPU instance profile. `index` is what queries name, `id` what creation names."""

    index: int
    id: int
    name: str
    slices: int
    instances: int
    sms: int
    copy_engines: int
    decoders: int
    jpeg: int
    ofa: int
    mem_mib: int
    starts: tuple[int, ...]
    size: int

    @property
    def line(self) -> str:
        """As native/sim-nvml/parse.c reads it; encoders are 0 on all cards with MIG."""
        counts = f"{self.slices} {self.instances} {self.sms} {self.copy_engines} {self.decoders} 0 {self.jpeg}"
        placements = " ".join(f"{start}:{self.size}" for start in self.starts)
        return f"profile {self.index} {self.id} {counts} {self.ofa} {self.mem_mib} {self.name} {placements}"


class Model(Struct, frozen=True):
    """What all cards of a model share."""

    name: str
    mem_mib: int
    reserved_mib: int
    """What the driver keeps for itself."""
    capability: tuple[int, int]
    architecture: int
    cores: int
    pci_id: int
    pci_subsystem: int
    watt: int
    idle_watt: int
    clocks: tuple[int, int]
    """Highest of the SMs and of the memory, MHz."""
    nvlinks: int = 0
    nvlink_version: int = 0
    ecc: bool = True
    mig: tuple[Profile, ...] = ()


def geometry(names: tuple[str, ...], mem_mib: tuple[int, ...], sms: tuple[int, ...], jpeg: int) -> tuple[Profile, ...]:
    """The seven-slice geometry of A100, H100 and H200: 1g, 1g+me, 1g with double memory, 2g, 3g, 4g, 7g.

    `mem_mib` and `sms` are of 1g, 1g double, 2g, 3g, 4g, 7g; `jpeg` is the JPEG engines of the card.
    """
    one, double, two, three, four, seven = mem_mib
    small = tuple(range(7))
    per_slice = 1 if jpeg > 1 else 0  # Hopper has an engine for each slice
    return (
        Profile(0, 19, names[0], 1, 7, sms[0], 1, per_slice, per_slice, 0, one, small, 1),
        Profile(7, 20, f"{names[0]}+me", 1, 1, sms[0], 1, 1, 1, 1, one, small, 1),
        Profile(9, 15, names[1], 1, 4, sms[1], 1, 1, per_slice, 0, double, (0, 2, 4, 6), 2),
        Profile(1, 14, names[2], 2, 3, sms[2], 2, 1 + per_slice, 2 * per_slice, 0, two, (0, 2, 4), 2),
        Profile(2, 9, names[3], 3, 2, sms[3], 3, 2 + per_slice, 3 * per_slice, 0, three, (0, 4), 4),
        Profile(3, 5, names[4], 4, 1, sms[4], 4, 2 + 2 * per_slice, 4 * per_slice, 0, four, (0,), 4),
        Profile(4, 0, names[5], 7, 1, sms[5], 7 + per_slice, 5 + 2 * per_slice, jpeg, 1, seven, (0,), 8),
    )


A100_SMS = (14, 14, 28, 42, 56, 98)
HOPPER_SMS = (16, 26, 32, 60, 64, 132)

MODELS: Mapping[str, Model] = {
    "A100-40": Model(
        "NVIDIA A100-SXM4-40GB", 40960, 624, (8, 0), AMPERE, 6912, 0x20B010DE, 0x144E10DE, 400, 53, (1410, 1215), 12, 4,
        mig=geometry(
            ("1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"),
            (4864, 9856, 9856, 19968, 19968, 40192), A100_SMS, 1,
        ),
    ),
    "A100-80": Model(
        "NVIDIA A100-SXM4-80GB", 81920, 869, (8, 0), AMPERE, 6912, 0x20B210DE, 0x147F10DE, 400, 60, (1410, 1593), 12, 4,
        mig=geometry(
            ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"),
            (9728, 19968, 19968, 40192, 40192, 81152), A100_SMS, 1,
        ),
    ),
    "H100": Model(
        "NVIDIA H100 80GB HBM3", 81559, 551, (9, 0), HOPPER, 16896, 0x233010DE, 0x16C110DE, 700, 70, (1980, 2619),
        18, 6, mig=geometry(
            ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"),
            (9984, 20096, 20096, 40448, 40448, 81024), HOPPER_SMS, 7,
        ),
    ),
    "H200": Model(
        "NVIDIA H200", 143771, 615, (9, 0), HOPPER, 16896, 0x233510DE, 0x18BE10DE, 700, 75, (1980, 3201), 18, 6,
        mig=geometry(
            ("1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"),
            (16384, 33280, 33280, 71424, 71424, 143360), HOPPER_SMS, 7,
        ),
    ),
    "V100": Model(
        "Tesla V100-SXM2-32GB", 32768, 268, (7, 0), VOLTA, 5120, 0x1DB510DE, 0x124910DE, 300, 42, (1530, 877), 6, 2,
    ),
    "A10": Model("NVIDIA A10", 23028, 512, (8, 6), AMPERE, 9216, 0x223610DE, 0x148210DE, 150, 20, (1695, 6251)),
    "L40S": Model("NVIDIA L40S", 46068, 580, (8, 9), ADA, 18176, 0x26B910DE, 0x185110DE, 350, 35, (2520, 9001)),
    "T4": Model("Tesla T4", 15360, 438, (7, 5), TURING, 2560, 0x1EB810DE, 0x12A210DE, 70, 9, (1590, 5001)),
    "P40": Model("Tesla P40", 24576, 150, (6, 1), PASCAL, 3840, 0x1B3810DE, 0x11D910DE, 250, 10, (1531, 3615)),
    "RTX-3090": Model(
        "NVIDIA GeForce RTX 3090", 24576, 320, (8, 6), AMPERE, 10496, 0x220410DE, 0x147D10DE, 350, 25, (2100, 9751),
        4, 4, ecc=False,
    ),
}  # fmt: skip
