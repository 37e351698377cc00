"""The rewrite language: rules as text, matched and applied on graphs."""

from hf2khc.rewrite.apply import apply_rules
from hf2khc.rewrite.load import load_rules, parse_rules
from hf2khc.rewrite.matcher import Match, Miss, match
from hf2khc.rewrite.pattern import Rule

__all__ = ["Match", "Miss", "Rule", "apply_rules", "load_rules", "match", "parse_rules"]
