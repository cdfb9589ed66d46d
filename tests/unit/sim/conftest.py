from hami.sim.fixtures import bench, nvml

__all__ = ["bench", "nvml"]
