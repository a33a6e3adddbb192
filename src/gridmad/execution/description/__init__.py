"""Job descriptions: one model, and a reader for each dialect that gwd writes."""
