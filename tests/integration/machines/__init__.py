"""Real machines for tests: an SSH server, an S3, a whole arm64 computer, all on loopback."""
