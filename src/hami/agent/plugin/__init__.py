"""What kubelet calls and where it finds us: the device plugin service, its registration, rivals for its name."""
