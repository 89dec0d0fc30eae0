"""The groups of the help, in which commands stand."""

DATA, RUNS, SUITES, RESULTS = "Data", "One cell", "Whole suites", "Results"
METHODS, PROJECT = "Methods and recipes", "The project itself"
