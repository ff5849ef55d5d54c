"""`llmesh up`: Envoy, the gateway and the tools as sibling processes of one parent.

The path of one program: `plan` says what to run, `launch` ties its life to the
supervisor's, `child` runs it and brings it back when it ends, `supervise` starts
them all and ends them in order, `state` writes down what runs for `status` and
`down`, `processes` clears away what a killed supervisor left.
"""
