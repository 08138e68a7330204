"""Audits of models: what did a fine-tune change elsewhere, and does the answer survive the way in which it was asked?"""

from discrepancy.methods.audit.compare import Comparison, compare
from discrepancy.methods.audit.drift import Drift, drift_test, next_token_drift, score_test
from discrepancy.methods.audit.emergent_misalignment import MisalignmentAudit, ModelAnswers
from discrepancy.methods.audit.formats import CustomFormat, JSONAnswer, Natural
from discrepancy.methods.audit.judges import ExpectedScoreJudge, Judgement, RuleJudge
from discrepancy.methods.audit.rates import coherence_coupling, rates, sensitivity
from discrepancy.methods.audit.records import AuditRecords, all_answers, coherent_answers

__all__ = [
    "AuditRecords",
    "Comparison",
    "CustomFormat",
    "Drift",
    "ExpectedScoreJudge",
    "JSONAnswer",
    "Judgement",
    "MisalignmentAudit",
    "ModelAnswers",
    "Natural",
    "RuleJudge",
    "all_answers",
    "coherence_coupling",
    "coherent_answers",
    "compare",
    "drift_test",
    "next_token_drift",
    "rates",
    "score_test",
    "sensitivity",
]
