"""The console at /console/: what the commands show and do, as pages that the backend serves itself."""

BROWSER_CONNECTIONS = 6
"""That a browser opens to one address at a time: so many pictures may be drawn at once."""
