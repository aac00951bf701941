"""ONNX as real exporters write it -> Relax, in the QDQ spelling, with static shapes."""

from intaglio.frontend.importer import Imported, import_model

__all__ = ["Imported", "import_model"]
