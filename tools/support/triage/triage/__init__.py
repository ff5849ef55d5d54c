"""Ticket triage: what a ticket is about and how urgent it is, by a prompt alone."""
