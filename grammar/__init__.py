"""The grammars of the IR text form and of the rule language."""
