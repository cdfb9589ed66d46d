"""NVML through nvidia-ml-py: the only file that imports pynvml, and it does so when first opened.

Turns ctypes structures into the values of `nvml` and return codes into faults.
It knows no policy; which library it talks to, the driver's or the simulated one,
makes no difference to it.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from hami.model.errors import Bug
from hami.vendors.nvidia import nvml
from hami.vendors.nvidia.nvml import Device, EventSet

SONAME = "libnvidia-ml.so.1"
FOLDERS = (
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "usr/local/nvidia/lib64",
    "usr/local/nvidia/lib",
)
"""Where a driver installation has its libraries, in HAMi's order; the last two where it is mounted as one folder."""
MAX_LINKS = 36
NODE_WORDS = 16
"""64-bit words of a NUMA mask: 1024 nodes, the kernel's limit."""
RECOVERY_FIELD = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, driver 565 and later."""
NONE_32 = 0xFFFFFFFF

Call = TypeVar("Call", bound=Callable[..., Any])


def find_library(driver_root: Path) -> Path | None:
    """The driver's NVML below a root; None leaves the bare name to the loader."""
    places = (driver_root / folder / SONAME for folder in FOLDERS)
    return next((place for place in places if place.exists()), None)


def asked(call: Call) -> Call:
    """Turns pynvml's errors into our faults, named after the method."""

    @functools.wraps(call)
    def checked(self: "Driver", *values: Any) -> Any:
        if self._nvml is None:
            raise nvml.DriverMissing("NVML is not open")
        try:
            return call(self, *values)
        except self._nvml.NVMLError as error:
            raise fault(self._nvml, error, call.__name__) from error

    return cast("Call", checked)


def fault(pynvml: Any, error: Any, function: str) -> Exception:
    """The fault for a return code."""
    code = error.value
    if code in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
        return nvml.DriverMissing(f"NVML: {error}: no NVIDIA driver, or no {SONAME}, where this process looks for it")
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return nvml.DriverReplaced(f"NVML: {error}: the driver was upgraded, this process must be restarted")
    if code in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
        return nvml.NotSupported(code, function, str(error))
    if code in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED):
        return nvml.CardLost(code, function, str(error))
    if code == pynvml.NVML_ERROR_TIMEOUT:
        return nvml.Timeout(f"NVML: {function}: {error}")
    return nvml.NvmlFault(code, function, str(error))


class Driver:
    """Implements `nvml.Nvml`. nvidia-ml-py keeps one library a process, so all instances share it."""

    def __init__(self, library: Path | None = None) -> None:
        self._library = library
        self._nvml: Any = None

    def open(self) -> None:
        import pynvml  # noqa: PLC0415, RUF100  late: 8000 lines that only a node with cards needs

        self._load(pynvml)
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise fault(pynvml, error, "open") from error
        self._nvml = pynvml

    def _load(self, pynvml: Any) -> None:
        """A library at a given place. pynvml itself would take only what the loader finds by name."""
        if self._library is None:
            return
        if pynvml.nvmlLib is None:
            try:
                pynvml.nvmlLib = ctypes.CDLL(str(self._library))
            except OSError as error:
                raise nvml.DriverMissing(f"{self._library} cannot be loaded: {error}") from error
        elif Path(pynvml.nvmlLib._name) != self._library:
            raise Bug(f"{pynvml.nvmlLib._name} is loaded, {self._library} cannot be in the same process")

    def close(self) -> None:
        if self._nvml is not None:
            pynvml, self._nvml = self._nvml, None
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError as error:
                raise fault(pynvml, error, "close") from error

    # -- the machine ---------------------------------------------------------------------

    @asked
    def driver_version(self) -> str:
        return str(self._nvml.nvmlSystemGetDriverVersion())

    @asked
    def nvml_version(self) -> str:
        return str(self._nvml.nvmlSystemGetNVMLVersion())

    @asked
    def cuda_version(self) -> tuple[int, int]:
        number = int(self._nvml.nvmlSystemGetCudaDriverVersion_v2())
        return number // 1000, number % 1000 // 10

    @asked
    def count(self) -> int:
        return int(self._nvml.nvmlDeviceGetCount())

    @asked
    def device(self, index: int) -> Device:
        return Device(self._nvml.nvmlDeviceGetHandleByIndex(index))

    @asked
    def device_by_uuid(self, uuid: str) -> Device:
        return Device(self._nvml.nvmlDeviceGetHandleByUUID(uuid.encode()))

    # -- who and where a card is -----------------------------------------------------------

    @asked
    def uuid(self, device: Device) -> str:
        return str(self._nvml.nvmlDeviceGetUUID(device))

    @asked
    def name(self, device: Device) -> str:
        return str(self._nvml.nvmlDeviceGetName(device))

    @asked
    def minor(self, device: Device) -> int:
        return int(self._nvml.nvmlDeviceGetMinorNumber(device))

    @asked
    def pci(self, device: Device) -> nvml.Pci:
        return _pci(self._nvml.nvmlDeviceGetPciInfo(device))

    @asked
    def capability(self, device: Device) -> tuple[int, int]:
        major, minor = self._nvml.nvmlDeviceGetCudaComputeCapability(device)
        return int(major), int(minor)

    @asked
    def memory_nodes(self, device: Device) -> frozenset[int]:
        words = self._nvml.nvmlDeviceGetMemoryAffinity(device, NODE_WORDS, self._nvml.NVML_AFFINITY_SCOPE_NODE)
        return frozenset(
            word * 64 + bit for word, value in enumerate(words) if value for bit in range(64) if value >> bit & 1
        )

    # -- how it does ------------------------------------------------------------------------

    @asked
    def memory(self, device: Device) -> nvml.Memory:
        try:
            full = self._nvml.nvmlDeviceGetMemoryInfo(device, version=self._nvml.nvmlMemory_v2)
        except self._nvml.NVMLError_FunctionNotFound:  # drivers before 510
            old = self._nvml.nvmlDeviceGetMemoryInfo(device)
            return nvml.Memory(old.total, 0, old.used, old.free)
        return nvml.Memory(full.total, full.reserved, full.used, full.free)

    @asked
    def load(self, device: Device) -> nvml.Load:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(device)
        return nvml.Load(rates.gpu, rates.memory)

    @asked
    def temperature(self, device: Device) -> int:
        return int(self._nvml.nvmlDeviceGetTemperature(device, self._nvml.NVML_TEMPERATURE_GPU))

    @asked
    def power_mw(self, device: Device) -> int:
        return int(self._nvml.nvmlDeviceGetPowerUsage(device))

    @asked
    def processes(self, device: Device) -> tuple[nvml.Process, ...]:
        compute = self._nvml.nvmlDeviceGetComputeRunningProcesses(device)
        try:
            graphics = self._nvml.nvmlDeviceGetGraphicsRunningProcesses(device)
        except self._nvml.NVMLError_NotSupported:
            graphics = []
        return (*(_process(one, False) for one in compute), *(_process(one, True) for one in graphics))

    @asked
    def process_loads(self, device: Device, since_us: int) -> tuple[nvml.ProcessLoad, ...]:
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(device, since_us)
        except self._nvml.NVMLError_NotFound:
            return ()
        # The driver pads its answer with entries of no process.
        return tuple(nvml.ProcessLoad(one.pid, one.timeStamp, one.smUtil, one.memUtil) for one in samples if one.pid)

    @asked
    def recovery_action(self, device: Device) -> int:
        value = self._nvml.nvmlDeviceGetFieldValues(device, [RECOVERY_FIELD])[0]
        self._nvml._nvmlCheckReturn(value.nvmlReturn)
        return int(value.value.uiVal)

    @asked
    def remapped_rows(self, device: Device) -> nvml.RemappedRows:
        correctable, uncorrectable, pending, failed = self._nvml.nvmlDeviceGetRemappedRows(device)
        return nvml.RemappedRows(correctable, uncorrectable, bool(pending), bool(failed))

    # -- how cards are joined ------------------------------------------------------------------

    @asked
    def nvlinks(self, device: Device) -> tuple[nvml.NvLink, ...]:
        return tuple(self._active_links(device))

    def _active_links(self, device: Device) -> Iterator[nvml.NvLink]:
        pynvml = self._nvml
        for number in range(MAX_LINKS):
            try:
                if not pynvml.nvmlDeviceGetNvLinkState(device, number):
                    continue
            except (pynvml.NVMLError_InvalidArgument, pynvml.NVMLError_NotSupported):
                return  # beyond the card's last link
            yield nvml.NvLink(
                number=number,
                version=int(pynvml.nvmlDeviceGetNvLinkVersion(device, number)),
                to_switch=self._ends_at_switch(device, number),
                remote=_pci(pynvml.nvmlDeviceGetNvLinkRemotePciInfo(device, number)),
            )

    def _ends_at_switch(self, device: Device, number: int) -> bool:
        kind = self._nvml.nvmlDeviceGetNvLinkRemoteDeviceType(device, number)
        return bool(kind == self._nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)

    @asked
    def level(self, one: Device, other: Device) -> nvml.Level:
        return nvml.Level(self._nvml.nvmlDeviceGetTopologyCommonAncestor(one, other))

    @asked
    def peer_access(self, one: Device, other: Device, what: nvml.Peer) -> bool:
        status = self._nvml.nvmlDeviceGetP2PStatus(one, other, int(what))
        return bool(status == self._nvml.NVML_P2P_STATUS_OK)

    # -- MIG -------------------------------------------------------------------------------------

    @asked
    def mig_mode(self, device: Device) -> nvml.Mode:
        current, pending = self._nvml.nvmlDeviceGetMigMode(device)
        return nvml.Mode(bool(current), bool(pending))

    @asked
    def gpu_instance_profiles(self, device: Device) -> tuple[nvml.GpuInstanceProfile, ...]:
        return tuple(self._profiles(device))

    def _profiles(self, device: Device) -> Iterator[nvml.GpuInstanceProfile]:
        pynvml = self._nvml
        for index in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            try:
                found = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, index, version=2)
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
                continue  # this card has no such profile, or this driver does not know it
            name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
            yield nvml.GpuInstanceProfile(
                index=index,
                id=found.id,
                name=name.removeprefix("MIG "),
                slices=found.sliceCount,
                instances=found.instanceCount,
                multiprocessors=found.multiprocessorCount,
                mem_mib=found.memorySizeMB,
                placements=self._placements(device, found.id),
            )

    def _placements(self, device: Device, profile: int) -> tuple[nvml.Placement, ...]:
        pynvml = self._nvml
        count = ctypes.c_uint(0)
        pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile, None, ctypes.byref(count))
        places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
        pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile, places, ctypes.byref(count))
        return tuple(nvml.Placement(place.start, place.size) for place in places[: count.value])

    # -- events --------------------------------------------------------------------------------------

    @asked
    def supported_events(self, device: Device) -> int:
        return int(self._nvml.nvmlDeviceGetSupportedEventTypes(device))

    @asked
    def event_set(self, devices: Sequence[tuple[Device, int]]) -> EventSet:
        events = self._nvml.nvmlEventSetCreate()
        try:
            for device, mask in devices:
                self._nvml.nvmlDeviceRegisterEvents(device, mask, events)
        except self._nvml.NVMLError:
            self._nvml.nvmlEventSetFree(events)
            raise
        return EventSet(events)

    @asked
    def wait(self, events: EventSet, timeout_ms: int) -> nvml.Event:
        event = self._nvml.nvmlEventSetWait_v2(events, timeout_ms)
        try:
            uuid = str(self._nvml.nvmlDeviceGetUUID(event.device))
        except self._nvml.NVMLError:
            uuid = None
        return nvml.Event(
            uuid, event.eventType, event.eventData, _known(event.gpuInstanceId), _known(event.computeInstanceId)
        )

    @asked
    def free(self, events: EventSet) -> None:
        self._nvml.nvmlEventSetFree(events)


def _known(number: int) -> int | None:
    return None if number == NONE_32 else int(number)


def _pci(found: Any) -> nvml.Pci:
    return nvml.Pci(found.domain, found.bus, found.device, found.pciDeviceId)


def _process(found: Any, graphics: bool) -> nvml.Process:
    return nvml.Process(
        pid=int(found.pid),
        mem_bytes=found.usedGpuMemory,
        graphics=graphics,
        gpu_instance=_instance(found.gpuInstanceId),
        compute_instance=_instance(found.computeInstanceId),
    )


def _instance(number: int | None) -> int | None:
    return None if number is None else _known(number)
