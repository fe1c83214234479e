"""Takes a trained network out of this package."""

from effnetv2_keras.export.saved_model import Classifier, ExportError, ExportReport, export_saved_model

__all__ = ["Classifier", "ExportError", "ExportReport", "export_saved_model"]
