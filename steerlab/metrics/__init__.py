"""Aggregates with intervals: from one row a text (scores) to one row a number (metrics). No torch here."""
