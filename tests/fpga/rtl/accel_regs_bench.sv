// SPDX-License-Identifier: Apache-2.0
//
// accel_regs with the names that cocotbext-axi looks for.

`default_nettype none

module accel_regs_bench
  import accel_pkg::*;
(
  input  logic                      clk_i,
  input  logic                      rst_i,
  input  logic [11:0]               axi_awaddr,
  input  logic                      axi_awvalid,
  output logic                      axi_awready,
  input  logic [31:0]               axi_wdata,
  input  logic [3:0]                axi_wstrb,
  input  logic                      axi_wvalid,
  output logic                      axi_wready,
  output logic [1:0]                axi_bresp,
  output logic                      axi_bvalid,
  input  logic                      axi_bready,
  input  logic [11:0]               axi_araddr,
  input  logic                      axi_arvalid,
  output logic                      axi_arready,
  output logic [31:0]               axi_rdata,
  output logic [1:0]                axi_rresp,
  output logic                      axi_rvalid,
  input  logic                      axi_rready,
  output logic                      start_o,
  output logic                      soft_reset_o,
  input  logic                      reset_done_i,
  input  logic                      busy_i,
  input  logic                      done_i,
  input  logic                      error_i,
  input  logic [7:0]                error_code_i,
  input  logic [31:0]               error_info_i,
  input  logic [COUNTERS-1:0][31:0] counters_i,
  output logic                      irq_o,
  output logic [31:0]               watchdog_o,
  output logic [ADDR_BITS-1:0]      program_base_o,
  output logic [31:0]               program_count_o,
  output logic [31:0]               task_o,
  output logic [ADDR_BITS-1:0]      weights_base_o,
  output logic [ADDR_BITS-1:0]      input_base_o,
  output logic [ADDR_BITS-1:0]      output_base_o
);

  accel_regs u_regs (
    .awaddr_i(axi_awaddr), .awvalid_i(axi_awvalid), .awready_o(axi_awready),
    .wdata_i(axi_wdata), .wstrb_i(axi_wstrb), .wvalid_i(axi_wvalid), .wready_o(axi_wready),
    .bresp_o(axi_bresp), .bvalid_o(axi_bvalid), .bready_i(axi_bready),
    .araddr_i(axi_araddr), .arvalid_i(axi_arvalid), .arready_o(axi_arready),
    .rdata_o(axi_rdata), .rresp_o(axi_rresp), .rvalid_o(axi_rvalid), .rready_i(axi_rready),
    .*
  );

endmodule

`default_nettype wire
