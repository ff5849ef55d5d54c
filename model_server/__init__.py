"""The model server: models that the mesh runs itself, behind llmesh.api.model.v1.ModelService."""
