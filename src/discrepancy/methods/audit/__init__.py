"""Audits of models: what did a fine-tune change elsewhere, and does the answer survive the way in which it was asked?"""
