"""Datasets made of others: expressions derived from masks and pixels."""
