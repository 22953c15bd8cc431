"""store/proto"""
