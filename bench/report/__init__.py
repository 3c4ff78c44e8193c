"""From result files to reports, plots and the documents' tables; no measurement. Imports all rooms of bench, for their tables."""
