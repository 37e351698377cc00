"""Children as forks of processes whose imports are done: importing is most of what a child would do."""
