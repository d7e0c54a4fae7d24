"""The commands of `ris`: what is typed, and what is printed."""
