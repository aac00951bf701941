// SPDX-License-Identifier: Apache-2.0
//
// axi_read_engine with the names that cocotbext-axi looks for.

`default_nettype none

module axi_read_bench
  import accel_pkg::*;
(
  input  logic                 clk_i,
  input  logic                 rst_i,
  input  logic                 stop_i,
  output logic                 idle_o,
  output logic                 error_o,
  input  logic                 cmd_valid_i,
  output logic                 cmd_ready_o,
  input  logic [ADDR_BITS-1:0] cmd_addr_i,
  input  logic [23:0]          cmd_beats_i,
  output logic                 valid_o,
  input  logic                 ready_i,
  output logic [BEAT_BITS-1:0] data_o,
  output logic                 axi_arid,
  output logic [ADDR_BITS-1:0] axi_araddr,
  output logic [7:0]           axi_arlen,
  output logic [2:0]           axi_arsize,
  output logic [1:0]           axi_arburst,
  output logic                 axi_arvalid,
  input  logic                 axi_arready,
  input  logic                 axi_rid,
  input  logic [BEAT_BITS-1:0] axi_rdata,
  input  logic [1:0]           axi_rresp,
  input  logic                 axi_rlast,
  input  logic                 axi_rvalid,
  output logic                 axi_rready
);

  assign axi_arid    = axi_rid && 1'b0;
  assign axi_arsize  = 3'($clog2(BEAT_BITS / 8));
  assign axi_arburst = 2'b01;

  axi_read_engine u_engine (
    .clk_i, .rst_i, .stop_i, .idle_o, .error_o,
    .cmd_valid_i, .cmd_ready_o, .cmd_addr_i, .cmd_beats_i,
    .valid_o, .ready_i, .data_o,
    .araddr_o(axi_araddr), .arlen_o(axi_arlen), .arvalid_o(axi_arvalid), .arready_i(axi_arready),
    .rdata_i(axi_rdata), .rresp_i(axi_rresp), .rlast_i(axi_rlast), .rvalid_i(axi_rvalid), .rready_o(axi_rready)
  );

endmodule

`default_nettype wire
