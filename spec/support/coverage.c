/* SPDX-License-Identifier: MIT */
/* Linked into every program that spec/coverage.sh builds, with --wrap=_exit:
 * children leave by _exit(), and what they went through counts too. */
/* These names are given: NOLINTBEGIN(bugprone-reserved-identifier) */
void __gcov_dump(void);
_Noreturn void __real__exit(int code);
_Noreturn void __wrap__exit(int code);

_Noreturn void __wrap__exit(int code)
{
    __gcov_dump();
    __real__exit(code);
}
/* NOLINTEND(bugprone-reserved-identifier) */
