"""When two prompts are one expression."""


def clean(prompt: str) -> str:
    """A sentence in lower case, its words one space apart: prompts that agree in this are one expression."""
    return " ".join(prompt.lower().split())
