"""The tool as a process of its own, as `llmesh up` starts it."""
