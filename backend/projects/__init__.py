"""Projects of Label Studio: how one is connected, and the photos of the sample project."""
