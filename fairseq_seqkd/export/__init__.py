"""Exports a trained student: for stock fairseq, for CTranslate2, or as a sparse file."""
