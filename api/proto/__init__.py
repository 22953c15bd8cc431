"""api/proto"""
