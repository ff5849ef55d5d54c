"""Fan-outs: one request to many tools. plan -> legs -> what came -> summary; all but legs and run is pure."""
