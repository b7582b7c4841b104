"""Our images, built and run without a registry: `script/images`."""
