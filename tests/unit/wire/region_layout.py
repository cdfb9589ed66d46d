"""HAMi-core's shared region, version 1.2, by the layout that HAMi's documents give: what its monitor maps."""

import ctypes as c


class Memory(c.Structure):
    _fields_ = [(name, c.c_uint64) for name in ("context", "module", "buffer", "offset", "total", "a", "b", "c")]


class Time(c.Structure):
    _fields_ = [(name, c.c_uint64) for name in ("decode", "encode", "sm", "a", "b", "c")]


class Slot(c.Structure):
    _fields_ = (
        ("pid", c.c_int32),
        ("host_pid", c.c_int32),
        ("used", Memory * 16),
        ("monitor_used", c.c_uint64 * 16),
        ("device_util", Time * 16),
        ("status", c.c_int32),
        ("sequence", c.c_uint64),
        ("spare", c.c_uint64 * 2),
    )


class Region(c.Structure):
    _fields_ = (
        ("magic", c.c_int32),
        ("major", c.c_int32),
        ("minor", c.c_int32),
        ("sm_init_flag", c.c_int32),
        ("owner_pid", c.c_uint64),
        ("semaphore", c.c_char * 32),
        ("device_num", c.c_uint64),
        ("uuids", (c.c_char * 96) * 16),
        ("limit", c.c_uint64 * 16),
        ("sm_limit", c.c_uint64 * 16),
        ("procs", Slot * 1024),
        ("proc_num", c.c_int32),
        ("utilization_switch", c.c_int32),
        ("recent_kernel", c.c_int32),
        ("priority", c.c_int32),
        ("last_kernel_time", c.c_int64),
        ("semaphore_after", c.c_char * 32),
    )
