"""Sweeps of tiny trials under real faults: is a finished trial ever lost, or a number run twice?"""
