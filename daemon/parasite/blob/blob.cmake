# SPDX-License-Identifier: Apache-2.0
# The parasite: freestanding, position independent, one flat file that is installed beside the backends.
set(BLOB_DIR ${CMAKE_CURRENT_SOURCE_DIR}/parasite/blob)
set(BLOB_ARCH ${CMAKE_CURRENT_SOURCE_DIR}/arch/${CMAKE_SYSTEM_PROCESSOR}/blob)
set(BLOB_OUT ${CMAKE_BINARY_DIR}/parasite.bin)
file(GLOB BLOB_SOURCES CONFIGURE_DEPENDS ${BLOB_DIR}/*.c ${BLOB_ARCH}/*.S ${BLOB_ARCH}/*.c)
if(BLOB_SOURCES)
	add_custom_command(OUTPUT ${BLOB_OUT}
		COMMAND ${CMAKE_C_COMPILER} -std=gnu17 -Wall -Wextra -Os -ffreestanding -fPIE -fno-stack-protector
			-fno-asynchronous-unwind-tables -fcf-protection=none -mno-sse -mgeneral-regs-only -fvisibility=hidden
			-nostdlib -static -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-T,${BLOB_DIR}/blob.lds
			-I${CMAKE_CURRENT_SOURCE_DIR} ${BLOB_SOURCES} -o ${BLOB_OUT}.elf
		COMMAND objcopy -O binary ${BLOB_OUT}.elf ${BLOB_OUT}
		DEPENDS ${BLOB_SOURCES} ${BLOB_DIR}/blob.lds ${CMAKE_CURRENT_SOURCE_DIR}/parasite/abi.h VERBATIM)
	install(FILES ${BLOB_OUT} DESTINATION ${CMAKE_INSTALL_LIBDIR}/ferry)
	add_custom_target(parasite-blob ALL DEPENDS ${BLOB_OUT})
else()
	add_custom_target(parasite-blob)
endif()
