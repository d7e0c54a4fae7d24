"""Label Studio's three ways to store a mask, both ways."""
