"""What the function says, apart from how it is asked."""

def greeting(path: str) -> str | None:
    """The greeting for a path, or None when the path greets nobody."""
    name = path.removeprefix("/hello/") if path.startswith("/hello/") else ""
    return f"Hello, {name}!\n" if name else None
