"""Ticket answers: what is known about a ticket, from every tool that finds passages."""
