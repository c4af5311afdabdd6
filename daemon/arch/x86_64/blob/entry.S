/* SPDX-License-Identifier: Apache-2.0 */
/* The first bytes of the parasite: fixed places (parasite/abi.h), and the way back to the target's registers. */
	.section .entry, "ax"
	.globl pb_entry
pb_entry:			/* PB_OFF_ENTRY: rdi is the mailbox */
	call	pb_main
	ud2
	.org	16
	syscall			/* PB_OFF_SYSCALL */
1:	pause
	jmp	1b
	.org	32
2:	mov	$34, %eax	/* PB_OFF_STUB: pause() for ever */
	syscall
	jmp	2b
	.org	48		/* PB_OFF_MAGIC: pb_ident of main.c follows */

	.text
/* int64_t pb_syscall(long nr, const uint64_t args[6]) */
	.globl pb_syscall
pb_syscall:
	mov	%rdi, %rax
	mov	%rsi, %r11
	mov	(%r11), %rdi
	mov	8(%r11), %rsi
	mov	16(%r11), %rdx
	mov	24(%r11), %r10
	mov	32(%r11), %r8
	mov	40(%r11), %r9
	syscall
	ret

/* void pb_cure(frame): see arch_cure_frame(). Does not return. */
	.globl pb_cure
pb_cure:
	mov	%rdi, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rax
	pop	%rcx
	pop	%rdx
	pop	%rsi
	pop	%rdi
	popfq
	ret
	.section .note.GNU-stack, "", @progbits
