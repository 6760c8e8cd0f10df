"""What decodes. A backend is a callable from a data set and sentence ids to n-best lists.

backend(dataset, ids) yields (id, hypotheses), every id once, in any order;
hypotheses is a list of (tokens, score), best first: token ids that end in EOS, and
the length-normalised score in nats.
"""
