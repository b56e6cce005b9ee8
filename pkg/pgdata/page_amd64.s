#include "textflag.h"

// One round for eight lanes: sum ^= value; sum = sum*prime ^ sum>>17.
// Y8 holds the prime.
#define ROUND(at, sum, shifted) \
	VPXOR  at(SI), sum, sum \
	VPSRLD $17, sum, shifted \
	VPMULLD Y8, sum, sum \
	VPXOR  shifted, sum, sum

// func mixRowsAVX2(sums *[32]uint32, rows []byte)
TEXT ·mixRowsAVX2(SB), NOSPLIT, $0-32
	MOVQ sums+0(FP), DI
	MOVQ rows_base+8(FP), SI
	MOVQ rows_len+16(FP), CX
	SHRQ $7, CX
	JZ   done
	MOVL $16777619, AX
	MOVQ AX, X8
	VPBROADCASTD X8, Y8
	VMOVDQU 0(DI), Y0
	VMOVDQU 32(DI), Y1
	VMOVDQU 64(DI), Y2
	VMOVDQU 96(DI), Y3

row:
	ROUND(0, Y0, Y4)
	ROUND(32, Y1, Y5)
	ROUND(64, Y2, Y6)
	ROUND(96, Y3, Y7)
	ADDQ $128, SI
	DECQ CX
	JNZ  row

	VMOVDQU Y0, 0(DI)
	VMOVDQU Y1, 32(DI)
	VMOVDQU Y2, 64(DI)
	VMOVDQU Y3, 96(DI)
	VZEROUPPER

done:
	RET
